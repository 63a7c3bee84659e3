"""A server under mixed load for hours: does it keep its promises, and does anything grow?"""
