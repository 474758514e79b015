"""Adapters: one file per kind of inner solver, imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zo_bilevel.adapters.batched import BatchedFunction
    from zo_bilevel.adapters.command_line.command_line import CommandLine
    from zo_bilevel.adapters.command_line.json_output import ReadJSON
    from zo_bilevel.adapters.command_line.output import (
        ReadColumns,
        ReadCSV,
        ReadNumpy,
        Run,
    )
    from zo_bilevel.adapters.command_line.pattern_output import ReadPattern
    from zo_bilevel.adapters.fmu.fmu import FMU
    from zo_bilevel.adapters.function import Function
    from zo_bilevel.adapters.http.service import HTTPService
    from zo_bilevel.adapters.linear_program.linear_program import LinearProgram
    from zo_bilevel.adapters.nonlinear_program import NonlinearProgram
    from zo_bilevel.adapters.prompts.chat_api import ChatAPI
    from zo_bilevel.adapters.prompts.chat_model import ChatModel
    from zo_bilevel.adapters.prompts.dspy_program import DSPyProgram
    from zo_bilevel.adapters.prompts.frozen_transformer import FrozenTransformer
    from zo_bilevel.adapters.prompts.language_model import LanguageModel
    from zo_bilevel.adapters.prompts.litellm_model import LiteLLM
    from zo_bilevel.adapters.prompts.local_chat import LocalChat
    from zo_bilevel.adapters.prompts.program import PromptProgram
    from zo_bilevel.adapters.prompts.prompt_search import PromptSearch
    from zo_bilevel.adapters.prompts.prompt_task import PromptTask
    from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate
    from zo_bilevel.adapters.prompts.prompted_transformer import PromptedTransformer
    from zo_bilevel.adapters.prompts.proposer import Proposer
    from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt
    from zo_bilevel.adapters.sklearn import SklearnEstimator
    from zo_bilevel.adapters.torch_unroll.functional_training import (
        FunctionalAdam,
        FunctionalSGD,
        FunctionalTraining,
        minibatches,
    )
    from zo_bilevel.adapters.torch_unroll.implicit_solution import ImplicitSolution
    from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll
    from zo_bilevel.bridges.sklearn_search import ZOSearchCV

_HOMES = {
    "zo_bilevel.adapters.torch_unroll.implicit_solution": ["ImplicitSolution"],
    "zo_bilevel.adapters.batched": ["BatchedFunction"],
    "zo_bilevel.adapters.command_line.command_line": ["CommandLine"],
    "zo_bilevel.adapters.fmu.fmu": ["FMU"],
    "zo_bilevel.adapters.prompts.chat_api": ["ChatAPI"],
    "zo_bilevel.adapters.prompts.chat_model": ["ChatModel"],
    "zo_bilevel.adapters.prompts.frozen_transformer": ["FrozenTransformer"],
    "zo_bilevel.adapters.prompts.language_model": ["LanguageModel"],
    "zo_bilevel.adapters.prompts.litellm_model": ["LiteLLM"],
    "zo_bilevel.adapters.prompts.local_chat": ["LocalChat"],
    "zo_bilevel.adapters.prompts.dspy_program": ["DSPyProgram"],
    "zo_bilevel.adapters.prompts.program": ["PromptProgram"],
    "zo_bilevel.adapters.prompts.prompt_search": ["PromptSearch"],
    "zo_bilevel.adapters.prompts.prompt_task": ["PromptTask"],
    "zo_bilevel.adapters.prompts.proposer": ["Proposer"],
    "zo_bilevel.adapters.prompts.prompt_template": ["PromptTemplate"],
    "zo_bilevel.adapters.prompts.prompted_transformer": ["PromptedTransformer"],
    "zo_bilevel.adapters.prompts.soft_prompt": ["SoftPrompt"],
    "zo_bilevel.adapters.function": ["Function"],
    "zo_bilevel.adapters.torch_unroll.functional_training": [
        "FunctionalAdam",
        "FunctionalSGD",
        "FunctionalTraining",
        "minibatches",
    ],
    "zo_bilevel.adapters.http.service": ["HTTPService"],
    "zo_bilevel.adapters.command_line.json_output": ["ReadJSON"],
    "zo_bilevel.adapters.linear_program.linear_program": ["LinearProgram"],
    "zo_bilevel.adapters.nonlinear_program": ["NonlinearProgram"],
    "zo_bilevel.adapters.command_line.output": [
        "ReadCSV",
        "ReadColumns",
        "ReadNumpy",
        "Run",
    ],
    "zo_bilevel.adapters.command_line.pattern_output": ["ReadPattern"],
    "zo_bilevel.bridges.sklearn_search": ["ZOSearchCV"],
    "zo_bilevel.adapters.sklearn": ["SklearnEstimator"],
    "zo_bilevel.adapters.torch_unroll.torch_unroll": ["TorchUnroll"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FMU",
    "BatchedFunction",
    "ChatAPI",
    "ChatModel",
    "CommandLine",
    "DSPyProgram",
    "FrozenTransformer",
    "Function",
    "FunctionalAdam",
    "FunctionalSGD",
    "FunctionalTraining",
    "HTTPService",
    "ImplicitSolution",
    "LanguageModel",
    "LinearProgram",
    "LiteLLM",
    "LocalChat",
    "NonlinearProgram",
    "PromptProgram",
    "PromptSearch",
    "PromptTask",
    "PromptTemplate",
    "PromptedTransformer",
    "Proposer",
    "ReadCSV",
    "ReadColumns",
    "ReadJSON",
    "ReadNumpy",
    "ReadPattern",
    "Run",
    "SklearnEstimator",
    "SoftPrompt",
    "TorchUnroll",
    "ZOSearchCV",
    "minibatches",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'zo_bilevel.adapters' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
