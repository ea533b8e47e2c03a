"""Captions that are small as a file and large in memory, or long in work: memory that does not grow, and one line."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attngan_deploy.errors import CaptionError
from attngan_deploy.generate.generation import UnknownWords
from attngan_deploy.generate.pipeline import TextToImage, UnknownWordWarning
from attngan_deploy.media import captions
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionFile, read_captions
from attngan_deploy.media.tokenizer import MAX_LETTERS, MOST_UNKNOWN, PADDING, Tokenizer, encode_caption
from tests.makers.memory import little_memory
from tests.makers.odd_captions import unlike_words
