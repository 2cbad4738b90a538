"""The keys of arq, as it writes them. They are no part of any namespace, and nothing of arq is imported to know them."""

LIBRARY = "arq"
DEFAULT_QUEUE = "arq:queue"
IN_PROGRESS = "arq:in-progress:"
JOB = "arq:job:"
RESULT = "arq:result:"
RETRY = "arq:retry:"
ABORT = "arq:abort"
