"""scikit-learn's conventions around networks with a proven constant: classifier, regressor, outliers, critic.

They need scikit-learn 1.6 or newer (``pip install 'tightlip[sklearn]'``), and pass all of its estimator checks.
"""

try:
    from sklearn.utils.validation import validate_data as _validate_data  # noqa: F401
except ImportError as problem:
    raise ImportError(
        "tightlip.estimators needs scikit-learn 1.6 or newer, which is not installed: pip install 'tightlip[sklearn]'"
    ) from problem

from .classifier import LipschitzClassifier
from .critic import WassersteinCritic
from .outlier import LipschitzOutlier
from .regressor import LipschitzRegressor

__all__ = ["LipschitzClassifier", "LipschitzOutlier", "LipschitzRegressor", "WassersteinCritic"]
