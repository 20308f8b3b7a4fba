"""The review page: a local web page for the hospital's people who do not live in terminals.

A process of its own, on the hospital's side. It talks to the running site over the control socket
only: it holds no keys and opens no database, and a session of it is worth what its person is.
"""
