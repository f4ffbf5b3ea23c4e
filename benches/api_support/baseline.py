"""The same document from memory, as one would write it in Python: what the API is measured against."""

import json
import os
from pathlib import Path

from fastapi import FastAPI, Response

app = FastAPI()
text = Path(os.environ["LATEST_WEIGHTS"]).read_bytes()
latest = json.loads(text)


@app.get("/v1/weights/latest")
async def weights():
    """Answer the vector that counts."""
    return latest


@app.get("/v1/weights/encoded")
async def encoded():
    """Answer it as bytes that were encoded once: the least that FastAPI can do."""
    return Response(text, media_type="application/json")
