"""success_classifier"""
