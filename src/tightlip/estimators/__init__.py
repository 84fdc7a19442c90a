"""scikit-learn's conventions around networks with a proven constant: classifier, regressor, outliers, critic.

They need scikit-learn 1.6 or newer (the extra ``tightlip[sklearn]``), and pass all of its estimator checks.
"""

from ..errors import install

try:
    from sklearn.utils.validation import validate_data as _validate_data  # noqa: F401
except ImportError as problem:
    raise ImportError(
        f"tightlip.estimators needs scikit-learn 1.6 or newer, which is not installed: {install('sklearn')}"
    ) from problem

from .classifier import LipschitzClassifier
from .critic import WassersteinCritic
from .outlier import LipschitzOutlier
from .regressor import LipschitzRegressor

__all__ = ["LipschitzClassifier", "LipschitzOutlier", "LipschitzRegressor", "WassersteinCritic"]
