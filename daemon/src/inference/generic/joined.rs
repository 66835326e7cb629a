//! Requests that are run as one, and each one's part of what comes out. Pure.

use crate::inference::{
    arrays::{Array, Arrays},
    error::InferenceError,
    manifest::TensorsGraph,
};

/// Requests that are run as one.
pub(super) struct Joined {
    pub(super) inputs: Arrays,
    rows: Vec<usize>,
}

impl Joined {
    pub(super) fn of(inputs: Arrays, rows: usize) -> Self {
        Self {
            inputs,
            rows: vec![rows],
        }
    }

    /// Takes another one in, if it has the same dimensions but the first, and there is room for its rows.
    pub(super) fn try_add(&mut self, graph: &TensorsGraph, inputs: &Arrays, rows: usize) -> bool {
        let held: usize = self.rows.iter().sum();
        let is_alike = self.inputs.iter().all(|(name, array)| {
            inputs.get(name).is_some_and(|other| {
                array.shape.len() == other.shape.len()
                    && array.shape.get(1..) == other.shape.get(1..)
                    && array.values.element_type() == other.values.element_type()
            })
        });
        if held + rows > graph.rows_max() || !is_alike {
            return false;
        }
        for (name, array) in &mut self.inputs {
            let is_added = inputs.get(name).is_some_and(|other| array.append(other));
            debug_assert!(is_added, "it was compared before");
        }
        self.rows.push(rows);
        true
    }

    /// Where each one's rows begin, and how many they are.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.rows.iter().scan(0, |at, &rows| {
            let begin = *at;
            *at += rows;
            Some((begin, rows))
        })
    }
}

/// One request's rows of all outputs.
pub(super) fn part_of(outputs: &Arrays, at: usize, rows: usize) -> Result<Arrays, InferenceError> {
    let part = |(name, array): (&String, &Array)| {
        let part = array.rows(at, rows);
        let part = part.ok_or_else(|| InferenceError::Outputs {
            what: format!("its output {name:?} has not a row for each of the input's"),
        })?;
        Ok((name.clone(), part))
    };
    outputs.iter().map(part).collect()
}
