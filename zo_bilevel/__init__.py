"""Black-box zeroth-order bilevel optimization.

Tune the parameters of anything that can only be run: `minimize(Problem(space, inner, outer))`.
Names are imported on first use, so that `import zo_bilevel` and the command line start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zo_bilevel.support.lazy_names import lazy_names

if TYPE_CHECKING:
    from zo_bilevel.comparison.compare import compare as compare
    from zo_bilevel.comparison.comparison import Comparison as Comparison
    from zo_bilevel.estimators.fg2u import FG2U as FG2U
    from zo_bilevel.estimators.fg2u_zo import FG2UZO as FG2UZO
    from zo_bilevel.estimators.reverse import ConjugateGradient as ConjugateGradient
    from zo_bilevel.estimators.reverse import HessianFree as HessianFree
    from zo_bilevel.estimators.reverse import Implicit as Implicit
    from zo_bilevel.estimators.reverse import Neumann as Neumann
    from zo_bilevel.estimators.reverse import ReverseUnroll as ReverseUnroll
    from zo_bilevel.estimators.reverse import TruncatedUnroll as TruncatedUnroll
    from zo_bilevel.estimators.sketch import Hypergradient as Hypergradient
    from zo_bilevel.estimators.sketch import Sketch as Sketch
    from zo_bilevel.estimators.sparse_zo import SparseZO as SparseZO
    from zo_bilevel.methods.base import Method as Method
    from zo_bilevel.methods.baselines.bobyqa import BOBYQA as BOBYQA
    from zo_bilevel.methods.baselines.botorch import BoTorch as BoTorch
    from zo_bilevel.methods.baselines.botorch import TuRBO as TuRBO
    from zo_bilevel.methods.baselines.cma import CMA as CMA
    from zo_bilevel.methods.baselines.cma import LqCMA as LqCMA
    from zo_bilevel.methods.baselines.dfols import DFOLS as DFOLS
    from zo_bilevel.methods.baselines.esmda import ESMDA as ESMDA
    from zo_bilevel.methods.baselines.nevergrad import Nevergrad as Nevergrad
    from zo_bilevel.methods.baselines.optuna import Optuna as Optuna
    from zo_bilevel.methods.baselines.optuna import OptunaHyperband as OptunaHyperband
    from zo_bilevel.methods.baselines.pounders import POUNDERS as POUNDERS
    from zo_bilevel.methods.baselines.random_search import RandomSearch as RandomSearch
    from zo_bilevel.methods.baselines.scipy import Scipy as Scipy
    from zo_bilevel.methods.baselines.smac import SMAC as SMAC
    from zo_bilevel.methods.default import DefaultMethod as DefaultMethod
    from zo_bilevel.methods.gauss_newton.gauss_newton import GaussNewton as GaussNewton
    from zo_bilevel.methods.gradient import GradientMethod as GradientMethod
    from zo_bilevel.methods.multi_start import MultiStart as MultiStart
    from zo_bilevel.methods.switches import BiasSeen as BiasSeen
    from zo_bilevel.methods.switches import Plateau as Plateau
    from zo_bilevel.methods.switches import SignalToNoise as SignalToNoise
    from zo_bilevel.methods.trust_region.trust_region import TrustRegion as TrustRegion
    from zo_bilevel.methods.two_phase import TwoPhase as TwoPhase
    from zo_bilevel.problem.constraints import Linear as Linear
    from zo_bilevel.problem.constraints import Output as Output
    from zo_bilevel.problem.dependent import Fixed as Fixed
    from zo_bilevel.problem.dependent import Tied as Tied
    from zo_bilevel.problem.experiments import Experiments as Experiments
    from zo_bilevel.problem.fidelity import Fidelity as Fidelity
    from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy as CrossEntropy
    from zo_bilevel.problem.objectives.robust_error import RobustError as RobustError
    from zo_bilevel.problem.objectives.squared_error import SquaredError as SquaredError
    from zo_bilevel.problem.parameters import Choice as Choice
    from zo_bilevel.problem.parameters import Integer as Integer
    from zo_bilevel.problem.parameters import Log as Log
    from zo_bilevel.problem.parameters import LogNormal as LogNormal
    from zo_bilevel.problem.parameters import Normal as Normal
    from zo_bilevel.problem.parameters import Real as Real
    from zo_bilevel.problem.problem import Problem as Problem
    from zo_bilevel.problem.space import Space as Space
    from zo_bilevel.problem.task import Task as Task
    from zo_bilevel.report.front import Front as Front
    from zo_bilevel.report.front import front as front
    from zo_bilevel.run.black_box import BlackBox as BlackBox
    from zo_bilevel.run.confidence import Uncertainty as Uncertainty
    from zo_bilevel.run.diagnosis import Diagnosis as Diagnosis
    from zo_bilevel.run.doctor import doctor as doctor
    from zo_bilevel.run.hypergradient import hypergradient as hypergradient
    from zo_bilevel.run.loop import minimize as minimize
    from zo_bilevel.run.next_solves import next_solves as next_solves
    from zo_bilevel.run.profile import Profile as Profile
    from zo_bilevel.run.profile import profile as profile
    from zo_bilevel.run.result import Record as Record
    from zo_bilevel.run.result import Result as Result
    from zo_bilevel.run.runs import Run as Run
    from zo_bilevel.run.uncertainty import uncertainty as uncertainty
    from zo_bilevel.run.zeroth_order_sgd import ZerothOrderSGD as ZerothOrderSGD
    from zo_bilevel.solve.dispatch.base import WithCost as WithCost
    from zo_bilevel.solve.dispatch.batched import Batched as Batched
    from zo_bilevel.solve.dispatch.distributed import Distributed as Distributed
    from zo_bilevel.solve.dispatch.joblib import Joblib as Joblib
    from zo_bilevel.solve.dispatch.serial import Serial as Serial
    from zo_bilevel.solve.dispatch.slurm import Slurm as Slurm
    from zo_bilevel.solve.evaluation import Evaluation as Evaluation
    from zo_bilevel.solve.evaluation import Point as Point
    from zo_bilevel.store.abstract import AbstractStore as AbstractStore
    from zo_bilevel.store.memory import MemoryStore as MemoryStore
    from zo_bilevel.store.postgres import PostgresStore as PostgresStore
    from zo_bilevel.store.queue.queue import Queue as Queue
    from zo_bilevel.store.sqlite import SQLiteStore as SQLiteStore
    from zo_bilevel.store.sqlite import Store as Store
    from zo_bilevel.support.errors import InnerSolverError as InnerSolverError
    from zo_bilevel.support.errors import InputError as InputError
    from zo_bilevel.support.errors import MissingPackageError as MissingPackageError
    from zo_bilevel.support.errors import StoreError as StoreError
    from zo_bilevel.support.errors import UnsupportedProblemError as UnsupportedProblemError
    from zo_bilevel.support.errors import ZoBilevelError as ZoBilevelError
    from zo_bilevel.support.memory import Memory as Memory
    from zo_bilevel.support.memory import peak_memory as peak_memory
    from zo_bilevel.support.memory import process_memory as process_memory

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(__name__, "__version__")
