//! What unsafe requests invalidate, whatever key it is stored under and whenever it was asked for.
