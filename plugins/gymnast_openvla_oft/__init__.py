"""openvla_oft"""
