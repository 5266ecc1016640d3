"""Answers as bytes, and where they go.

Door: `formats`. `text` renders values and tables; `destination` writes files and pipes.
"""
