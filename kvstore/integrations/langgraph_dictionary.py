"""What nearly every checkpoint says, for deflate to refer to; the most frequent last.

It is part of the file format: what was packed with it is unpacked with the very same bytes. A
better one gets another name, and another first byte in `langgraph_parts`.
"""

from typing import Final

__all__ = ["DICTIONARY_1"]

_WORDS: Final = (
    b"because through between should before another information example different question "
    b"language number system however without something following possible understand "
    b"Please Thanks Thank you Sure Yes No Hello Here is Here are I am I'm I'll you're don't "
    b"It's Let me know if you would like to How can I help you today? What is the What are the "
    b"there their these those where which would could about after first other people when what "
    b"more some then them than been were they have your with from this that will also into make "
    b"time like just only over such need used use how can may was has had not but are for you and "
    b"ing tion ment ness able ion ed er ly es s, s. . The . I . It . This , and , but , which "
    b" as an on at be by or if so we he it to is in a of the to the in the of the and the for the "
)
_NAMES: Final = (
    b"langchain_core.documents.base Document page_content metadata source "
    b"langgraph.types Interrupt Send Command __interrupt__ __resume__ __error__ __pregel_tasks "
    b"__no_writes__ counters_since_delta_snapshot datetime fromisoformat uuid UUID "
    b"__pregel_push __root__ remaining_steps structured_response todos files chatbot "
    b"\x94\xbelangchain_core.messages.system\xadSystemMessage\x86\xa7content"
)
_TOOL: Final = (
    b"\x91\xc7\xe5\x05\x94\xbclangchain_core.messages.tool\xabToolMessage\x89\xa7content\xab"
    b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa4tool\xa4name\xa6search"
    b"\xa2id\xd9$\xactool_call_id\xb8call_\xa8artifact\xc0\xa6status\xa7success"
    b"\xb3model_validate_json\xb5~__pregel_pull, tools\x94\x01\xafbranch:to:agent\x92\xa4null"
    b"\xc4\x00\xb5~__pregel_pull, tools"
)
_MODEL: Final = (
    b"\x80\xb1response_metadata\x86\xabtoken_usage\x83\xb1completion_tokens\x01\xadprompt_tokens"
    b"\x02\xactotal_tokens\x03\xaamodel_name\xa3gpt\xb2system_fingerprint\xc0\xadfinish_reason"
    b"\xa4stop\xaatool_calls\xa8logprobs\xc0\xaemodel_provider\xa6openai\xa9anthropic\xa4type"
    b"\xa2ai\xa4name\xc0\xa2id\xd9)run--\xaatool_calls\x91\x84\xa4name\xa6search\xa4args\x81"
    b"\xa5query\xa1x\xa2id\xb8call_\xa4type\xa9tool_call\xb2invalid_tool_calls\x90"
    b"\xaeusage_metadata\x85\xacinput_tokensd\xadoutput_tokens\x14\xactotal_tokensx"
    b"\xb3input_token_details\x81\xaacache_read\x00\xb4output_token_details\x81\xa9reasoning\x00"
    b"\xb3model_validate_json\xb5~__pregel_pull, agent\x94\x01\xafbranch:to:tools\x92\xa4null"
)
_STEP: Final = (
    b"\x97\xc0\x92\xa7msgpack\xc5\x012\x84\xa1v\x04\xa2ts\xd9 2026-12-01T05:23:05.3+00:00"
    b"\xadversions_seen\x84\xa9__input__\x80\xa9__start__\x81\xa9__start__"
    b"\xd9)00000000000000000000000000000001.\xa5agent\x81\xafbranch:to:agent"
    b"\xd9)00000000000000000000000000000001.\xa5tools\x81\xafbranch:to:tools"
    b"\xd9)00000000000000000000000000000001.\xb0updated_channels\x92\xafbranch:to:agent"
    b"\xa8messages\x84\xa9__start__\xd9)00000000000000000000000000000001.\xa8messages"
    b"\xd9)00000000000000000000000000000001.\xafbranch:to:agent"
    b"\xd9)00000000000000000000000000000001.\xafbranch:to:tools"
    b"\xd9)00000000000000000000000000000001."
)
_CHAT: Final = (
    b"\x97\xd9$1f1\x92\xa7msgpack\xc5\x01\x23\x84\xa1v\x04\xa2ts\xd9 2027-01-01T00:00:00.0+00:00"
    b"\xadversions_seen\x83\xa9__input__\x80\xa9__start__\x81\xa9__start__"
    b"\xd9)00000000000000000000000000000001.\xa5model\x81\xafbranch:to:model"
    b"\xd9)00000000000000000000000000000001.\xb0updated_channels\x91\xa8messages"
    b"\x92\xafbranch:to:model\xa8messages\x91\xa9__start__\x83\xa9__start__"
    b"\xd9)00000000000000000000000000000001.\xa8messages"
    b"\xd9)00000000000000000000000000000001.\xafbranch:to:model"
    b"\xd9)00000000000000000000000000000001.\x82\xafbranch:to:model\x92\xa4null\xc4\x00\xa8messages"
    b"\x93\xa4list\x91\x93\xa6\x82\xa9__start__\x92\xa7msgpack\xc5\x01\x1e\x81\xa8messages"
    b"\x81\xa8messages\x93\xa4list\x91\x93\xa6"
)
_MESSAGES: Final = (
    b"\x92\x94\x00\xa8messages\x92\xa7msgpack\xc5\x01\xeb\x91\xc8\x01\xe6\x05\x94"
    b"\xbalangchain_core.messages.ai\xa9AIMessage\x89\xa7content\xd9\xb1additional_kwargs\x80"
    b"\xb1response_metadata\x80\xa4type\xa2ai\xa4name\xc0\xa2id\xd9$\xaatool_calls\x90"
    b"\xb2invalid_tool_calls\x90\xaeusage_metadata\xc0\xb3model_validate_json"
    b"\xb5~__pregel_pull, model\x92\x94\x00\xa8messages\x92\xa7msgpack\xc5\x01\xc4\x91\xc8\x01"
    b"\x14\x05\x94\xbdlangchain_core.messages.human\xacHumanMessage\x86\xa7content\xda\x01\x18"
    b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa5human\xa4name\xc0\xa2id\xd9$"
    b"\xb3model_validate_json\xb9~__pregel_pull, __start__\x94\x01\xafbranch:to:model\x92\xa4null"
    b"\xc4\x00\xb9~__pregel_pull, __start__"
)

DICTIONARY_1: Final = b"".join((_WORDS, _NAMES, _TOOL, _MODEL, _STEP, _CHAT, _MESSAGES))
