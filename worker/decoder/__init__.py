"""The place where compressed frames are decoded: processes of their own that may die or hang, and only a frame pays."""
