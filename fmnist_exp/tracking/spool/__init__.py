"""The spool keeps what a process writes about its runs on the local disk, and sends it to the store from there.

No caller waits for the store, and nothing is lost while it is away: every record stays in a folder until it is sent.
"""
