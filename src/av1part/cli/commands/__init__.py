"""One module a verb: a composed configuration and positional words in, an exit or an error out.

Here configuration ends: below this layer functions take plain values.
"""
