"""For ComfyUI: this folder in `custom_nodes`, and "Load Upscale Model" opens the `compact` files of srgan too."""

import srgan_cli

srgan_cli.register_with_spandrel()

NODE_CLASS_MAPPINGS: dict[str, type] = {}  # it has no nodes of its own
