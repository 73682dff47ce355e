"""Who is measured: how each is installed and started, and how it is asked.

Peers are arranged for 2 cores as their documentation recommends; ``arrangement`` says how.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from contest.environments import REPOSITORY

Group: TypeAlias = Literal["ours", "floor", "as written", "serving layer"]

PEERS_FOLDER: Final = REPOSITORY / "benchmarks" / "peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server, as one would install and start it.

    Attributes:
        name: in options, tables and results.
        group: what it is compared as.
        requirements: what pip is asked for; "torch" is replaced by ``--torch``.
        command: starts it. Filled in are ``<bin>``, its environment's programs; ``<port>``,
            ``<port2>`` and ``<port3>``; ``<peers>``, the folder of the applications; ``<work>``, a
            folder of its own.
        arrangement: its processes and threads.
        reader: see ``peers/reading.py``.
        files: written to its folder before each start, filled in alike.
        setup: run before the first start, in its folder.
        variables: of its environment, beside the ordinary ones.
        path: that answers.
        body: the request's, ``<image>`` being the base64.
        pattern: Lua pattern of a right answer, ``<digit>`` being the digit.
        constant: the digit that it answers whatever it is sent.
    """

    name: str
    group: Group
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    arrangement: str
    reader: str = "onnxruntime"
    files: dict[str, str] = field(default_factory=dict)
    setup: tuple[tuple[str, ...], ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"
    body: str = '{"image": "<image>"}'
    pattern: str = '"prediction"%s*:%s*<digit>%D'
    constant: int | None = None

    def with_our_reader(self) -> Contender:
        """The same server with our DigitReader behind it."""
        return replace(
            self, name=f"{self.name} + DigitReader", group="serving layer", reader="inkdigits"
        )


_ONNX: Final = ("pillow", "numpy", "onnxruntime")
_GUNICORN: Final = ("<bin>/gunicorn", "--bind", "127.0.0.1:<port>", "flask_app:app")

OURS: Final = Contender(
    name="inkdigits",
    group="ours",
    requirements=(str(REPOSITORY),),
    command=("<bin>/inkdigits", "serve", "--port", "<port>", "--no-page"),
    arrangement="inkdigits serve --no-page: the model service, which keeps no log",
)
FLOOR: Final = Contender(
    name="floor",
    group="floor",
    requirements=OURS.requirements,
    command=("<bin>/python", "<peers>/constant_app.py"),
    arrangement="a constant answer from Flask under the configuration of inkdigits serve",
    variables={"INKDIGITS_PAGE": "off"},
    constant=7,
)
TORCHSERVE: Final = Contender(
    name="torchserve",
    group="as written",
    requirements=(
        # The latter two it needs without saying so.
        *("torchserve", "torch-model-archiver", "pyyaml", "setuptools<81"),
        *("pillow", "numpy", "torch"),
    ),
    command=(
        *("<bin>/torchserve", "--start", "--foreground", "--ncs", "--disable-token-auth"),
        *("--model-store", "<work>", "--models", "digits=digits.mar"),
        *("--ts-config", "<work>/config.properties"),
    ),
    arrangement="TorchServe with a worker a core of one thread, batches of up to 8 within 1 ms",
    # Two workers of two threads each wait for one another on two cores.
    variables={"OMP_NUM_THREADS": "1"},
    reader="torch",
    files={
        "model.yaml": "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\nmaxBatchDelay: 1\n",
        "config.properties": "inference_address=http://127.0.0.1:<port>\n"
        "management_address=http://127.0.0.1:<port2>\n"
        "metrics_address=http://127.0.0.1:<port3>\n",
    },
    setup=(
        (
            *("<bin>/torch-model-archiver", "--model-name", "digits", "--version", "1.0"),
            *("--handler", "<peers>/torchserve_handler.py", "--config-file", "model.yaml"),
            *("--extra-files", "<peers>/reading.py,<peers>/plain.py"),
            *("--export-path", "<work>", "--force"),
        ),
    ),
    path="/predictions/digits",
)
PEERS: Final = (
    Contender(
        name="demo",
        group="as written",
        requirements=("flask", "gunicorn", "pillow", "numpy", "torch"),
        command=_GUNICORN,
        arrangement="Flask and PyTorch under Gunicorn's default, one sync worker",
        reader="torch",
    ),
    Contender(
        name="gunicorn",
        group="as written",
        requirements=("flask", "gunicorn", *_ONNX),
        command=(*_GUNICORN, "--workers", "5", "--threads", "4"),
        arrangement="Flask under Gunicorn with 2 x cores + 1 workers of 4 threads",
    ),
    Contender(
        name="fastapi",
        group="as written",
        requirements=("fastapi", "uvicorn[standard]", *_ONNX),
        command=(
            *("<bin>/uvicorn", "fastapi_app:app", "--host", "127.0.0.1", "--port", "<port>"),
            *("--workers", "2"),
        ),
        arrangement="FastAPI under Uvicorn, a worker a core, its pool of threads",
    ),
    Contender(
        name="litserve",
        group="as written",
        requirements=("litserve", *_ONNX),
        command=("<bin>/python", "<peers>/litserve_app.py"),
        arrangement="LitServe with an inference worker a core, no batching",
    ),
    Contender(
        name="bentoml",
        group="as written",
        requirements=("bentoml", *_ONNX),
        command=(
            *("<bin>/bentoml", "serve", "bentoml_app:Digits", "--working-dir", "<peers>"),
            *("--host", "127.0.0.1", "--port", "<port>"),
        ),
        arrangement="BentoML with a worker a core",
        variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Contender(
        name="ray",
        group="as written",
        requirements=("ray[serve]", *_ONNX),
        command=("<bin>/python", "<peers>/ray_app.py"),
        arrangement="Ray Serve with a replica a core behind its proxy",
        # Its own 5 s are too short for its proxy where two cores start all of Ray at once.
        variables={
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        },
    ),
    Contender(
        name="mlserver",
        group="as written",
        # Its release of 2025 asks for a loop that uvloop 0.22 no longer makes.
        requirements=("mlserver", "uvloop<0.22", *_ONNX),
        command=("<bin>/mlserver", "start", "<work>"),
        arrangement="MLServer with a parallel worker a core",
        files={
            "settings.json": json.dumps({"parallel_workers": 2}),
            "model-settings.json": json.dumps(
                {"name": "digits", "implementation": "mlserver_app.Digits"}
            ),
        },
        variables={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "<port>",
            "MLSERVER_GRPC_PORT": "<port2>",
            "MLSERVER_METRICS_PORT": "<port3>",
        },
        path="/v2/models/digits/infer",
        body='{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", '
        '"parameters": {"content_type": "str"}, "data": ["<image>"]}]}',
        pattern='"data"%s*:%s*%[%s*<digit>%D',
    ),
    TORCHSERVE,
)
