//! The rules of stopping the line and starting it again. Sends nothing.
