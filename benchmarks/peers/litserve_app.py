"""LitServe: the four methods of its documentation, with two inference workers."""

import sys

import litserve
from reading import make_reader


class DigitAPI(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002 - LitServe's signature
        self.read = make_reader()

    def decode_request(self, request):
        return request["image"]

    def predict(self, image):
        return self.read(image)

    def encode_response(self, digit):
        return {"prediction": digit}


if __name__ == "__main__":
    server = litserve.LitServer(DigitAPI(), accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
