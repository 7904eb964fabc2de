"""What an agent does: one call to a model, with nothing said about a gateway."""

import json
import urllib.request

ASK = {"model": "gpt-4o-mini", "temperature": 0, "messages": [{"role": "user", "content": "Say hi"}]}
FIELDS = {"Content-Type": "application/json", "Authorization": "Bearer sk-docs"}
CALL = urllib.request.Request("https://api.openai.com/v1/chat/completions", json.dumps(ASK).encode(), FIELDS)
with urllib.request.urlopen(CALL, timeout=20) as answer:
    print(answer.headers["Cache-Status"])
