//! Sound as files and pipes have it, and as models want it: [`read`] takes WAV and bare samples in, [`mod@write`] gives them out, [`resample`] brings them to a model's rate.
//!
//! Sound inside is f32, mono, -1..1, with its rate beside it. Nothing here knows of models, buses or devices, and what comes from outside is held
//! against limits before anything is kept of it.

pub mod read;
pub mod resample;
pub mod write;
