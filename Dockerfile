# t2i serve on a CPU: no torch, no compiler, not root.
#   docker build -t attngan-deploy . && docker run --rm -p 127.0.0.1:8000:8000 attngan-deploy
# tests/house/test_dockerfile.py runs every RUN, CMD and HEALTHCHECK line of this file in a clean virtual environment.

FROM python:3.12-slim AS build
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-compile "$(ls /wheels/*.whl)[cpu,serve]"
ENV T2I_CACHE=/tmp/attngan-deploy PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"
CMD ["t2i", "serve", "--host", "0.0.0.0", "--port", "8000"]
