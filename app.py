"""Starts TokenLab. On a Hugging Face Space this file is the entry point."""

import os

from components import shell
from tokenlab import limits

demo = shell.build()
demo.queue(max_size=limits.QUEUE, default_concurrency_limit=4)

if __name__ == "__main__":
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    print(f"TokenLab is at http://{host}:{port}", flush=True)
    demo.launch(server_name=host, server_port=port, **shell.launch_settings())
