"""Where compressed frames are decoded: processes of their own that may die or hang, at the cost of one frame."""
