//! What every loop needs and no domain owns: clock, random tokens, back-off. No domain words.
