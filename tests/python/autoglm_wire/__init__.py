"""The autoglm-edge wire protocol in Python, written from protocol/SPEC.md alone; it shares nothing with the Rust crate.

Plain and slow on purpose: the standard library is all it needs. It proves that the specification suffices, and is no product.
"""
