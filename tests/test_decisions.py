import pandas as pd
import pytest

from robustbias.images.cue_conflict import cues
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.shape_bias import decisions
from robustbias.utils import MissingData, UserError

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"
TRIALS = [
    "ann,1,1,0.71,dog,dog,0,0001_s5n_s01_0_dog_00_dog10-bird2.png",
    "ann,1,2,0.93,bird,dog,0,0002_s5n_s01_0_dog_00_dog3-bird1.png",
    "ann,1,3,NaN,na,cat,0,0003_s5n_s01_0_cat_00_cat1-elephant12.png",
    "ann,1,4,1.01,oven,cat,0,0004_s5n_s01_0_cat_00_cat2-car3.png",
    "ann,1,5,0.80,cat,cat,0,0005_s5n_s01_0_cat_00_cat2-cat3.png",
]


def written(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog10-bird2", ("dog", 10, "bird", 2)),
        ("0003_s5n_s01_0_dog_00_dog10-bicycle1.png", ("dog", 10, "bicycle", 1)),
        ("cat/cat3-elephant12.jpg", ("cat", 3, "elephant", 12)),
        ("0001_sif_dnn_0_airplane_00_airplane10.png", ("airplane", 10, None, None)),
    ],
)
def test_a_name_says_its_cues(name, expected):
    assert cues(name) == expected
    assert cues(name).stem == name.split("_")[-1].split("/")[-1].split(".")[0]


@pytest.mark.parametrize("name", ["dog-bird", "10-2", "", "dog10-bird2-cat1", "dog10bird2"])
def test_a_name_of_another_form_is_an_error(name):
    with pytest.raises(UserError, match="does not name a stimulus; expected shapeK-textureJ"):
        cues(name)


def test_trials_follow_shape_texture_or_neither(tmp_path):
    table = decisions.read(written(tmp_path / "a.csv", *TRIALS))
    assert table["decision"].tolist() == ["shape", "texture", "neither", "neither"]
    assert table["stimulus"].tolist() == [
        "dog10-bird2",
        "dog3-bird1",
        "cat1-elephant12",
        "cat2-car3",
    ]
    assert table["object_response"].tolist() == ["dog", "bird", "na", "oven"]


def test_agreeing_stimuli_are_left_out_unless_asked_for(tmp_path):
    file = written(tmp_path / "a.csv", *TRIALS)
    assert len(decisions.read(file)) == 4
    assert len(decisions.read(file, agreeing=True)) == 5


@pytest.mark.parametrize("answer", ["na", "NA", "nan", "", "None"])
def test_no_answer_is_neither_and_stays(tmp_path, answer):
    table = decisions.read(
        written(tmp_path / "a.csv", f"ann,1,1,NaN,{answer},dog,0,0001_x_dog1-cat1.png")
    )
    assert table[["object_response", "decision"]].to_numpy().tolist() == [["na", "neither"]]


def test_drawings_have_no_texture_and_are_kept(tmp_path):
    rows = [
        "ann,1,1,NaN,dog,dog,0,0001_sif_x_0_dog_00_dog10.png",
        "ann,1,2,NaN,cat,dog,0,0002_sif_x_0_dog_00_dog1.png",
    ]
    table = decisions.read(written(tmp_path / "a.csv", *rows))
    assert table["texture"].isna().all()
    assert table["decision"].tolist() == ["shape", "neither"]


def test_files_of_model_vs_human_are_read(tmp_path):
    rows = ["resnet50,1,1,NaN,bicycle,airplane,NaN,airplane1-bicycle2.png"]
    file = written(tmp_path / "a.csv", *rows, header=HEADER.replace("session", "Session"))
    table = decisions.read(file)
    assert table[["session", "stimulus", "decision"]].to_numpy().tolist() == [
        [1, "airplane1-bicycle2", "texture"]
    ]


def test_written_decisions_read_back(tmp_path):
    names, answers = ("dog10-bird2", "cat3-elephant12", "bear1-car1"), ("bird", "cat", "na")
    path = decisions.write(tmp_path / "net.csv", "resnet50-r", names, answers)
    assert path.read_text().splitlines()[0] == HEADER
    table = decisions.read(path)
    assert table["stimulus"].tolist() == list(names)
    assert table["object_response"].tolist() == list(answers)
    assert table["decision"].tolist() == ["texture", "shape", "neither"]
    assert set(table["subj"]) == {"resnet50-r"}


def test_decisions_that_cannot_be_read_back_are_not_written(tmp_path):
    path = tmp_path / "net.csv"
    with pytest.raises(UserError, match="2 stimuli but 1 responses"):
        decisions.write(path, "net", ["dog1-cat1", "cat1-dog1"], ["dog"])
    with pytest.raises(UserError, match="unknown object_response 'teapot'"):
        decisions.write(path, "net", ["dog1-cat1"], ["teapot"])
    assert list(tmp_path.iterdir()) == []


def test_trials_are_restricted_to_stimuli_whose_cues_are_both_among_the_categories(tmp_path):
    table = decisions.restricted(
        decisions.read(written(tmp_path / "a.csv", *TRIALS)), ("dog", "bird", "cat", "car")
    )
    assert table["stimulus"].tolist() == ["dog10-bird2", "dog3-bird1", "cat2-car3"]
    assert table["decision"].tolist() == ["shape", "texture", "neither"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["ann,1,1,NaN,teapot,dog,0,0001_x_dog1-cat1.png"], "unknown object_response 'teapot'.*na"),
        (["ann,1,1,NaN,dog,dog,0,0001_x_dog1-fork1.png"], "unknown texture 'fork'"),
        (
            ["ann,1,1,NaN,dog,cat,0,0001_x_dog1-cat1.png"],
            "category 'cat' of trial 1 is not the sha",
        ),
        (["ann,1,one,NaN,dog,dog,0,0001_x_dog1-cat1.png"], "trial is 'one'; expected a whole"),
        (["ann,1,1,NaN,dog,dog,0,holiday.png"], "'holiday.png' does not name a stimulus"),
        ([TRIALS[0], TRIALS[0]], "1 repeated trials in .*the first: subj ann, session 1, trial 1"),
        ([TRIALS[0], TRIALS[0].replace("1,1,0.71", "1,9,0.71")], "repeated .*stimulus dog10-bird2"),
        ([], "no trials below the header"),
    ],
)
def test_bad_trials_are_one_clear_error(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        decisions.read(written(tmp_path / "a.csv", *rows))


def test_missing_columns_are_named(tmp_path):
    file = written(tmp_path / "a.csv", "1,dog", header="trial,object_response")
    with pytest.raises(UserError, match="no column subj, session, rt, category, condition, imagen"):
        decisions.read(file)


def test_files_that_are_no_csv_are_an_error(tmp_path):
    (tmp_path / "empty.csv").touch()
    written(tmp_path / "twice.csv", "a,1,1,1,dog,dog,0,x.png,2", header=f"{HEADER},trial")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 4)
    for name, message in {
        "empty.csv": "not a readable CSV",
        "binary.csv": "not a readable CSV",
        "absent.csv": "no such file",
        "twice.csv": "not a readable CSV|twice",
        ".": "not a readable CSV",
    }.items():
        with pytest.raises(UserError, match=message):
            decisions.read(tmp_path / name)
    with pytest.raises(UserError, match="no decision files given"):
        decisions.read([])


def test_published_decisions_that_are_not_here_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    with pytest.raises(MissingData, match="robustbias fetch decisions"):
        decisions.published()


@pytest.fixture(scope="module")
def real_trials(data_directory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTBIAS_DATA", str(data_directory))
        return decisions.published()


@pytest.mark.parametrize(
    ("observer", "shape", "texture"),
    [
        ("alexnet", 283, 376),
        ("googlenet", 228, 503),
        ("vgg", 130, 625),
        ("resnet50", 162, 572),
        ("humans", 9236, 398),
    ],
)
def test_published_decisions_give_the_published_counts(real_trials, observer, shape, texture):
    subject = real_trials["subj"].where(~real_trials["subj"].str.startswith("subject"), "humans")
    counts = real_trials[subject == observer]["decision"].value_counts()
    assert (counts["shape"], counts["texture"]) == (shape, texture)
    assert counts.sum() == (12_000 if observer == "humans" else 1_200)


def test_people_gave_131_trials_no_answer(data_directory):
    files = sorted((data_directory / "texture-vs-shape/decisions/cue-conflict").glob("*subject*"))
    trials = decisions.read(files, agreeing=True)
    unanswered = trials[trials["object_response"] == "na"]
    assert len(trials) == 12_800
    assert len(unanswered) == 131
    assert set(unanswered["decision"]) == {"neither"}


def test_eleven_categories_leave_550_stimuli(real_trials):
    trials = decisions.restricted(real_trials, TinyImageNet().categories)
    assert set(trials.groupby("subj").size()) == {550}
    assert isinstance(trials, pd.DataFrame)
