"""What requests and answers look like; FastAPI makes the OpenAPI schema from it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from attngan_deploy.generate.noise import LARGEST_SEED
from attngan_deploy.serve.settings import ServerLimits

CAPTION = "a small red bird with black wings and a short beak"


class _Request(BaseModel):
    """What a client sends: of what is wrong with it little is kept, as one sentence will say the first of it."""

    @model_validator(mode="before")
    @classmethod
    def _drop_unknown(cls, values: Any) -> Any:
        """Leave one of the fields that there are not: an error for each may be as many as fit into a body."""
        if not isinstance(values, dict):
            return values
        unknown = [name for name in values if name not in cls.model_fields]
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        return known | {name: values[name] for name in unknown[:1]}


class GenerateRequest(_Request):
    """Captions to draw. The same seed gives the same pictures as `t2i generate` with these captions in this order."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"captions": [CAPTION], "seed": 7},
                {"captions": [CAPTION, "a yellow bird"], "n": 2, "seed": 7, "model": "base", "format": "json"},
                {"captions": [CAPTION], "format": "json", "attention": True, "stream": True},
            ]
        },
    )

    captions: Annotated[list[str], FailFast()] = Field(
        min_length=1, description="One picture or more of each; places count from 0."
    )
    n: int = Field(1, ge=1, description="Pictures of each caption.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Same seed, same pictures.")
    model: str | None = Field(None, description="One of GET /models; the default model where it is left out.")
    format: Literal["png", "webp", "json"] = Field(
        "png", description="png and webp answer one picture; json any number, as PNG in base64."
    )
    shared_noise: bool = Field(False, description="Same noise for every caption, so that words alone differ.")
    attention: bool = Field(False, description="With json: also what each word looked at.")
    stream: bool = Field(
        False, description="With json: lines of JSON, a preview of each picture's first stage before the picture."
    )


class WordsRequest(_Request):
    """A caption of which to know the words that a model lacks."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"caption": "a smal redish bird", "model": "base"}]},
    )

    caption: str = Field(description="As it is typed.")
    model: str | None = Field(None, description="One of GET /models; the default model where it is left out.")


class UnknownWord(BaseModel):
    """A word that is left out."""

    word: str
    nearest: str | None = Field(description="The known word that looks most like it, if any.")


class WordsAnswer(BaseModel):
    """What a model makes of a caption."""

    known: int = Field(description="Words of the caption that the model knows.")
    unknown: list[UnknownWord]


class PictureAttention(BaseModel):
    """What each word of a picture looked at."""

    words: list[str] = Field(description="The words that the model saw.")
    shares: list[float] = Field(description="Each word's share of the attention; they sum to 1.")
    maps: str = Field(description="Base64 of a grey PNG: a square for each word, one below the other.")


class Picture(BaseModel):
    """One picture."""

    caption: int = Field(description="The caption's place in the request, from 0.")
    sample: int = Field(description="Sample number of that caption, from 0.")
    size: int = Field(description="Pixels along a side.")
    data: str = Field(description="Base64 of a PNG, which carries what made it: see t2i replay.")
    attention: PictureAttention | None = None


class GenerateAnswer(BaseModel):
    """Pictures as JSON."""

    model: str
    model_hash: str
    engine: str
    seed: int
    unknown: list[list[str]] = Field(description="The words of each caption that were left out.")
    pictures: list[Picture]


class ModelAnswer(BaseModel):
    """A model that is served."""

    name: str
    variant: str | None
    default: bool
    hash: str
    engine: str
    picture_size: int
    preview_size: int
    words: int = Field(description="Words of its vocabulary.")
    licence: str | None


class LimitsAnswer(BaseModel):
    """What a request may ask for."""

    caption_letters: int
    captions: int
    pictures: int
    attended: int


class ModelsAnswer(BaseModel):
    """What is served."""

    models: list[ModelAnswer]
    limits: LimitsAnswer


class HealthAnswer(BaseModel):
    """Whether pictures can be made."""

    status: Literal["ok", "down"]
    why: str = Field(description="Why not; empty where they can.")
    waiting: int = Field(description="Pictures that were accepted and are not made yet.")


class Problem(BaseModel):
    """What was wrong, in a sentence."""

    detail: str


def add_limits(schema: dict[str, Any], limits: ServerLimits) -> dict[str, Any]:
    """Write a server's own limits into its OpenAPI schema."""
    properties = schema["components"]["schemas"]["GenerateRequest"]["properties"]
    properties["captions"] |= {"maxItems": limits.captions}
    properties["captions"]["items"] |= {"minLength": 1, "maxLength": limits.caption_letters}
    properties["n"]["maximum"] = limits.pictures
    schema["components"]["schemas"]["WordsRequest"]["properties"]["caption"]["maxLength"] = limits.caption_letters
    return schema
