"""Ray Serve: a deployment with a replica a core, behind Ray's proxy."""

import os
import time

import ray
from ray import serve
from reading import make_reader
from starlette.requests import Request


@serve.deployment(num_replicas=2)
class Digits:
    def __init__(self) -> None:
        self.read = make_reader()

    async def __call__(self, request: Request) -> dict:
        return {"prediction": self.read((await request.json())["image"])}


if __name__ == "__main__":
    # The cores are named, for Ray would count those of the host.
    ray.init(num_cpus=2, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Digits.bind(), route_prefix="/predict")
    while True:
        time.sleep(3600)
