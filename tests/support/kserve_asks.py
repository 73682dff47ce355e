"""KServe's client asks a service by the Open Inference Protocol; run by an interpreter that has it.

    python kserve_asks.py ADDRESS < QUESTION

``QUESTION`` is JSON: ``ink`` for the model "mnist", nested lists; ``picture``, an encoded picture
in base64, for the model "inkdigits"; ``binary``, whether tensors are sent and wanted as bytes. What
the client makes of the answers is printed as JSON. No more than KServe itself is imported.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

import kserve
import numpy as np
from kserve.protocol.infer_type import RequestedOutput


async def ask(base: str, question: dict[str, Any]) -> dict[str, Any]:
    binary = question["binary"]
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
    said: dict[str, Any] = {
        "live": await client.is_server_live(base),
        "ready": await client.is_server_ready(base),
        "mnist ready": await client.is_model_ready(base, "mnist"),
    }
    ink = np.array(question["ink"], np.float32)
    tensor = kserve.InferInput("ink", list(ink.shape), "FP32")
    tensor.set_data_from_numpy(ink, binary_data=binary)
    wanted = [RequestedOutput("probabilities", {"binary_data": binary})]
    request = kserve.InferRequest("mnist", [tensor], request_outputs=wanted)
    answer = await client.infer(base, request, model_name="mnist")
    said["probabilities"] = answer.outputs[0].as_numpy().tolist()
    picture = base64.b64decode(question["picture"]) if binary else question["picture"]
    tensor = kserve.InferInput("picture", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([picture], dtype=object), binary_data=binary)
    answer = await client.infer(
        base, kserve.InferRequest("inkdigits", [tensor]), model_name="inkdigits"
    )
    said["digit"] = next(o for o in answer.outputs if o.name == "digit").as_numpy().tolist()
    await client.close()
    return said


if __name__ == "__main__":
    json.dump(asyncio.run(ask(sys.argv[1], json.load(sys.stdin))), sys.stdout)
