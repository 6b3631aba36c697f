"""Recipe field for a precision, read and written as text such as 4w4a."""

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from lowbit.quant.precision import Precision

PrecisionField = Annotated[
    Precision, BeforeValidator(Precision.parse), PlainSerializer(str, return_type=str)
]
