"""The Flex Template: the image of its launcher (Dockerfile), its parameters (metadata.json) and what is launched (main)."""
