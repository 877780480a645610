"""Write, audit, publish: a run works on its own copy, and only a green one becomes what people read."""
