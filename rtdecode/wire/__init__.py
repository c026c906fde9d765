"""Messages between processes and to the world: what they hold, how they are framed, published and read."""
