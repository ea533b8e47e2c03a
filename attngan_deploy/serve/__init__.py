"""Models behind HTTP: `t2i serve`.

    connection -> protocol -> protection -> app (routes) -> intake (checks) -> batcher -> worker process -> answers

The engines live in a process of their own: what kills it leaves the server standing, and the noise contract makes it
harmless to make a picture again. FastAPI, uvicorn and prometheus-client come with the extra `serve`.
"""
