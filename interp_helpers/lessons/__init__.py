"""The content of the course: for each notebook a folder with its checks, its quiz and wrong answers. See README.md beside this file."""
