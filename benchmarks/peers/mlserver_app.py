"""MLServer: a custom runtime; the folder that it is started in holds two files of settings."""

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from reading import make_reader


class Digits(MLModel):
    async def load(self) -> bool:
        self.read = make_reader()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (image,) = StringCodec.decode_input(payload.inputs[0])
        digit = self.read(image)
        output = ResponseOutput(name="digit", shape=[1], datatype="INT64", data=[digit])
        return InferenceResponse(model_name=self.name, outputs=[output])
