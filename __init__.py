"""Gatewise: what does this low-bit network cost in hardware, exactly?"""
