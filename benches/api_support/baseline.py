"""The same document from memory, as one would write it in Python: what the API is measured against."""

import json
import os
from pathlib import Path

from fastapi import FastAPI

app = FastAPI()
latest = json.loads(Path(os.environ["LATEST_WEIGHTS"]).read_text())


@app.get("/v1/weights/latest")
async def weights():
    """Answer the vector that counts."""
    return latest
