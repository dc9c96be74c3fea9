"""For ComfyUI: put this folder into `custom_nodes`, and "Load Upscale Model" can also open srgan's `compact` files."""

import srgan_cli

srgan_cli.register_with_spandrel()

NODE_CLASS_MAPPINGS: dict[str, type] = {}  # it has no nodes of its own
