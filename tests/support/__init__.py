"""Helpers that several tests share: stores, servers, browsers, and one way to make a small search."""
