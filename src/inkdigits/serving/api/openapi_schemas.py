"""JSON Schemas (2020-12) of what the API takes and gives; limits come from the settings."""

from __future__ import annotations

from typing import get_args

from inkdigits.decision.policy import Decision, Reason
from inkdigits.log.record import Kept
from inkdigits.settings import Settings
from inkdigits.types import Json


def ref(name: str) -> Json:
    """A reference to one of ``schemas``."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(settings: Settings) -> Json:
    """The schemas by name.

    Args:
        settings: whose limits are stated.
    """
    share = {"type": "number", "minimum": 0, "maximum": 1}
    milliseconds = {"type": "number", "minimum": 0}
    risk = {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "description": "Tolerated share of wrong readings among the accepted.",
    }
    text = {"type": "string"}
    picture = {
        "type": "string",
        "description": "Base64 (RFC 4648) or a data URL (RFC 2397) of a PNG, JPEG, WebP, BMP, GIF "
        f"or TIFF of at most {settings.max_pixels} pixels.",
    }
    return {
        "Picture": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": picture,
                "risk": risk,
                "explain": {"type": "boolean", "description": "Add what the reading rests on."},
            },
        },
        "Pictures": {
            "type": "object",
            "required": ["images"],
            "properties": {
                "images": {
                    "type": "array",
                    "items": picture,
                    "minItems": 1,
                    "maxItems": settings.max_batch,
                },
                "risk": risk,
            },
        },
        "Form": {
            "type": "object",
            "required": ["image"],
            "properties": {"image": {"type": "string", "contentMediaType": "image/*"}},
        },
        "Prediction": {
            "type": "object",
            "required": [
                *("prediction", "confidence", "probabilities", "decision", "reason", "novelty"),
                *("model_version", "id", "kept"),
                *("preprocessing_time_ms", "inference_time_ms", "total_time_ms"),
            ],
            "properties": {
                "prediction": {
                    "type": ["integer", "null"],
                    "minimum": 0,
                    "maximum": 9,
                    "description": "The digit; null only when there is no ink to read.",
                },
                "confidence": {**share, "description": "Calibrated probability of the digit."},
                "probabilities": {"type": "array", "items": share, "minItems": 10, "maxItems": 10},
                "decision": {"enum": list(get_args(Decision))},
                "reason": {"enum": [*get_args(Reason), None]},
                "novelty": {"type": ["number", "null"], "description": "Higher is stranger."},
                "model_version": text,
                "id": {"type": "string", "format": "uuid"},
                "kept": {"enum": list(get_args(Kept)), "description": "Where it is kept."},
                "preprocessing_time_ms": milliseconds,
                "inference_time_ms": milliseconds,
                "total_time_ms": milliseconds,
                "risk": {**risk, "description": "Where one was stated: the risk."},
                "coverage": {
                    **share,
                    "description": "Where a risk was stated: share of calibration digits that "
                    "are accepted at it; 0 where it can't be kept.",
                },
                "explanation": ref("Explanation"),
                "ink": {
                    "type": "string",
                    "description": "Where asked for: what the model saw, 28 x 28, as a data URL.",
                },
            },
        },
        "Explanation": {
            "type": "object",
            "required": [
                *("runner_up", "runner_up_probability", "ink_png", "saliency_png", "saliency")
            ],
            "properties": {
                "runner_up": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
                "runner_up_probability": share,
                "ink_png": {"type": "string", "contentEncoding": "base64"},
                "saliency_png": {"type": "string", "contentEncoding": "base64"},
                "saliency": {
                    "type": "array",
                    "items": {
                        "type": "array",
                        "items": {"type": "number"},
                        "minItems": 28,
                        "maxItems": 28,
                    },
                    "minItems": 28,
                    "maxItems": 28,
                },
            },
        },
        "Predictions": {
            "type": "object",
            "required": ["predictions"],
            "properties": {
                "predictions": {
                    "type": "array",
                    "items": {"oneOf": [ref("Prediction"), ref("Error")]},
                    "maxItems": settings.max_batch,
                }
            },
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {"code": text, "message": text},
                }
            },
        },
        "InferenceError": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": text},
        },
        "InferenceRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": text,
                "parameters": {"type": "object"},
                "inputs": {
                    "type": "array",
                    "items": ref("Tensor"),
                    "minItems": 1,
                    "maxItems": 1,
                },
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": text, "parameters": {"type": "object"}},
                    },
                },
            },
        },
        "InferenceAnswer": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "id": text,
                "model_name": text,
                "model_version": text,
                "outputs": {"type": "array", "items": ref("Tensor")},
            },
        },
        "Tensor": {
            "type": "object",
            "required": ["name", "datatype", "shape"],
            "properties": {
                "name": text,
                "datatype": {"enum": ["FP32", "INT32", "BYTES"]},
                "shape": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1},
                    "minItems": 1,
                    "maxItems": 4,
                },
                "parameters": {"type": "object"},
                "data": {"type": "array"},
            },
        },
        "Health": {
            "type": "object",
            "required": ["status", "model_loaded", "model_version", "version"],
            "properties": {
                "status": {"enum": ["healthy", "unhealthy"]},
                "model_loaded": {"type": "boolean"},
                "model_version": text,
                "version": text,
            },
        },
        "Status": {
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": {"enum": ["alive", "ready"]},
                "log": {"enum": ["database", "outbox", "off"]},
            },
        },
    }
