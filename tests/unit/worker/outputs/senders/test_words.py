"""Words of receivers, without those that name a patient."""

from __future__ import annotations

from worker.outputs.senders.words import without


def test_words_of_a_receiver_name_no_patient() -> None:
    words = "Unknown patient NACHTIGALL, Florentine (MRN-7), order A-1; try again, Ann"
    told = without(words, ["Nachtigall", "Florentine", "MRN-7", "A-1", "a"])
    assert told == "Unknown patient ***, *** (***), order ***; try again, Ann"
    assert len(without("x" * 999, [])) == 200


def test_accents_may_stand_apart_from_their_letters() -> None:
    apart, whole = "Mu\u0308ller", "M\u00fcller"
    for told, known in ((apart, whole), (whole, apart), (apart.upper(), whole)):
        assert without(f"no patient {told}", [known]) == "no patient ***"
