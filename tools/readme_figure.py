"""Draw the README's picture from a run of the offline model: python tools/readme_figure.py"""

from pathlib import Path

from interp_helpers import load_model, logit_diff, patch_sweep

lm = load_model("offline")
source, base = "The Eiffel Tower is in the city of", "The Colosseum is in the city of"
sweep = patch_sweep(lm, base, source, logit_diff(lm, " Paris", " Rome"), normalize=True)
picture = sweep.plot(title="Where does the model keep the city? One patch a cell")
picture.save(Path(__file__).parents[1] / "assets" / "patching.png")
print(picture.alt)
