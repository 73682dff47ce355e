"""TorchServe: a handler that reads the requests of a batch together."""

from reading import make_batch_reader
from ts.torch_handler.base_handler import BaseHandler


class Digits(BaseHandler):
    def initialize(self, context):  # noqa: ARG002 - TorchServe's signatures
        self.read_many = make_batch_reader()
        self.initialized = True

    def handle(self, data, context):  # noqa: ARG002
        digits = self.read_many([row["body"]["image"] for row in data])
        return [{"prediction": digit} for digit in digits]
