"""The slow, plain twins of the C++ engines. A twin is the definition; the engine is an implementation of it."""
