"""`gymnast collect`: episodes recorded in any Gymnasium environment, for `gymnast fit`, imitation and judges.

    gymnast collect collect-tabletop                                   # a scripted expert and random walks
    gymnast collect collect-tabletop keep=successes environments='[{id: gymnast/Tabletop-v0, count: 200}]'
    gymnast collect --resume RUN

The options are the fields of `gymnast_collect.config.CollectConfig`.
"""
