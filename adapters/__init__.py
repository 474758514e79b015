"""Adapters: one file per kind of inner solver, imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zo_bilevel.support.lazy_names import lazy_names

if TYPE_CHECKING:
    from zo_bilevel.adapters.batched import BatchedFunction as BatchedFunction
    from zo_bilevel.adapters.command_line.command_line import CommandLine as CommandLine
    from zo_bilevel.adapters.command_line.json_output import ReadJSON as ReadJSON
    from zo_bilevel.adapters.command_line.output import ReadColumns as ReadColumns
    from zo_bilevel.adapters.command_line.output import ReadCSV as ReadCSV
    from zo_bilevel.adapters.command_line.output import ReadNumpy as ReadNumpy
    from zo_bilevel.adapters.command_line.output import Run as Run
    from zo_bilevel.adapters.command_line.pattern_output import ReadPattern as ReadPattern
    from zo_bilevel.adapters.fmu.fmu import FMU as FMU
    from zo_bilevel.adapters.function import Function as Function
    from zo_bilevel.adapters.http.service import HTTPService as HTTPService
    from zo_bilevel.adapters.linear_program.linear_program import LinearProgram as LinearProgram
    from zo_bilevel.adapters.nonlinear_program import NonlinearProgram as NonlinearProgram
    from zo_bilevel.adapters.prompts.chat_api import ChatAPI as ChatAPI
    from zo_bilevel.adapters.prompts.chat_model import ChatModel as ChatModel
    from zo_bilevel.adapters.prompts.dspy_program import DSPyProgram as DSPyProgram
    from zo_bilevel.adapters.prompts.frozen_transformer import (
        FrozenTransformer as FrozenTransformer,
    )
    from zo_bilevel.adapters.prompts.judge import Judge as Judge
    from zo_bilevel.adapters.prompts.language_model import LanguageModel as LanguageModel
    from zo_bilevel.adapters.prompts.litellm_model import LiteLLM as LiteLLM
    from zo_bilevel.adapters.prompts.local_chat import LocalChat as LocalChat
    from zo_bilevel.adapters.prompts.program import PromptProgram as PromptProgram
    from zo_bilevel.adapters.prompts.prompt_search import PromptSearch as PromptSearch
    from zo_bilevel.adapters.prompts.prompt_task import PromptTask as PromptTask
    from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate as PromptTemplate
    from zo_bilevel.adapters.prompts.prompted_transformer import (
        PromptedTransformer as PromptedTransformer,
    )
    from zo_bilevel.adapters.prompts.proposer import Proposer as Proposer
    from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt as SoftPrompt
    from zo_bilevel.adapters.prompts.tuned_prompt import tuned_prompt as tuned_prompt
    from zo_bilevel.adapters.sklearn import SklearnEstimator as SklearnEstimator
    from zo_bilevel.adapters.torch_unroll.functional_training import (
        FunctionalAdam as FunctionalAdam,
    )
    from zo_bilevel.adapters.torch_unroll.functional_training import FunctionalSGD as FunctionalSGD
    from zo_bilevel.adapters.torch_unroll.functional_training import (
        FunctionalTraining as FunctionalTraining,
    )
    from zo_bilevel.adapters.torch_unroll.functional_training import minibatches as minibatches
    from zo_bilevel.adapters.torch_unroll.implicit_solution import (
        ImplicitSolution as ImplicitSolution,
    )
    from zo_bilevel.adapters.torch_unroll.online_es import OnlineES as OnlineES
    from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll as TorchUnroll
    from zo_bilevel.bridges.sklearn_search import ZOSearchCV as ZOSearchCV

__getattr__, __dir__, __all__ = lazy_names(__name__)
