//! All words that a wording knows.

use std::collections::BTreeSet;

use super::wording::{PhraseList, Wording};

impl Wording {
    /// Every single word that the file knows, for telling typing errors from words.
    pub fn vocabulary(&self) -> BTreeSet<String> {
        let g = &self.grammar;
        let r = &self.references;
        let n = &self.numbers;
        let mut lists: Vec<&PhraseList> = vec![
            &g.fillers,
            &g.polite,
            &g.polite_gerund,
            &g.wish,
            &g.conjunctions,
            &g.determiners,
            &g.indefinite,
            &g.subjects,
            &g.copulas,
            &g.negations,
            &g.questions,
            &g.requests,
            &g.conversation,
            &g.deferred,
            &g.deferred_before,
            &g.after_particle,
            &g.prepositions,
            &g.value_prepositions,
            &g.change_prepositions,
            &g.stop,
            &g.harmless,
            &g.never_correct,
            &r.pronouns,
            &r.other,
            &r.both,
            &r.all,
            &r.everything,
            &r.except,
            &r.also,
            &r.slightly,
            &r.much,
            &self.answers.yes,
            &self.answers.no,
            &n.minus,
            &n.largest,
            &n.smallest,
        ];
        for verb in self.verbs.values() {
            lists.extend([&verb.phrases, &verb.near, &verb.particles]);
        }
        for quantity in self.quantities.values() {
            lists.extend([
                &quantity.names,
                &quantity.adjectives,
                &quantity.up,
                &quantity.down,
            ]);
        }
        lists.extend(self.units.values().map(|unit| &unit.words));
        let mut words: BTreeSet<String> = lists
            .iter()
            .flat_map(|list| list.iter().flatten().cloned())
            .collect();
        words.extend(
            n.words
                .keys()
                .chain(n.multipliers.keys())
                .chain(n.fractions.keys())
                .cloned(),
        );
        words.extend([n.and.clone(), n.point.clone(), n.pronoun.clone()]);
        words.extend(r.ordinals.iter().cloned());
        words
    }
}
