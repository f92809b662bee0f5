"""Pictures: tensors and scores in, a picture or a page out. Nothing here reads or writes a file."""
